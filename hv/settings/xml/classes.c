/* Which instances a VM's document consists of, and their constant properties. */
#include "hv/settings/xml/classes.h"

/* specs/wmi-compat 2, InstanceID grammar: the resource sub-type's GUID names the device. */
#define MEMORY_DEVICE    "\\4764334d-e001-4176-82ee-5594ec9b530e"
#define PROCESSOR_DEVICE "\\b637f346-6a0e-4dec-af52-bd70cb80a21d\\0"

const struct xml_class xml_classes[] = {
    {"Msvm_ComputerSystem", NULL,
     {{"CreationClassName", "string", "Msvm_ComputerSystem"},
      {"Caption", "string", "Virtual Machine"}}},
    {"Msvm_VirtualSystemSettingData", "",
     {{"VirtualSystemType", "string", "Microsoft:Hyper-V:System:Realized"},
      {"VirtualSystemSubType", "string", "Microsoft:Hyper-V:SubType:1"}}},
    {"Msvm_MemorySettingData", MEMORY_DEVICE,
     {{"ResourceType", "uint16", "4"},
      {"ResourceSubType", "string", "Microsoft:Hyper-V:Memory"},
      {"AllocationUnits", "string", "byte * 2^20"},
      {"VirtualQuantityUnits", "string", "byte * 2^20"}}},
    {"Msvm_ProcessorSettingData", PROCESSOR_DEVICE,
     {{"ResourceType", "uint16", "3"},
      {"ResourceSubType", "string", "Microsoft:Hyper-V:Processor"},
      {"AllocationUnits", "string", "percent / 1000"},
      {"VirtualQuantityUnits", "string", "count"}}},
    {"Msvm_HeartbeatComponentSettingData", "\\84eaae65-2f2e-45f5-9bb5-0e857dc8eb47",
     {{"ElementName", "string", "Heartbeat"}}},
    {"Msvm_ShutdownComponentSettingData", "\\9f8233ac-be49-4c79-8ee3-e7e1985b2077",
     {{"ElementName", "string", "Shutdown"}}},
    {"Msvm_TimeSyncComponentSettingData", "\\2497f4de-e9fa-4204-80e4-4b75c46419c0",
     {{"ElementName", "string", "Time Synchronization"}}},
    {"Msvm_KvpExchangeComponentSettingData", "\\2a34b1c2-fd73-4043-8a5b-dd2159bc743f",
     {{"ElementName", "string", "Key-Value Pair Exchange"}}},
    {"Msvm_VssComponentSettingData", "\\5ced1297-4598-4915-a5fc-ad21bb4d02a4",
     {{"ElementName", "string", "VSS"}}},
    {"Msvm_GuestServiceInterfaceComponentSettingData", "\\6c09bb55-d683-4da0-8931-c9bf705f6480",
     {{"ElementName", "string", "Guest Service Interface"}}},
    {"Hv_VirtualSystemSettingData", "", {{0}}},
    {"Hv_BootSettingData", "", {{0}}},
    {"Hv_MemorySettingData", MEMORY_DEVICE, {{0}}},
    {0},
};

/* Values of Hyper-V's own enumerations (wmi-compat 2.3), in the order of our words. */
const struct xml_enum xml_enums[] = {
    {SETTING_ON_START, {2, 3, 4}},       /* none, restart if it was running, always */
    {SETTING_ON_STOP, {4, 3, 2}},        /* shut down, save, turn off */
};
const unsigned xml_enum_count = ARRAY_SIZE(xml_enums);
