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
    {"Hv_VirtualSystemSettingData", "", {{0}}},
    {"Hv_BootSettingData", "", {{0}}},
    {0},
};

/* Values of Hyper-V's own enumerations (wmi-compat 2.3), in the order of our words. */
const struct xml_enum xml_enums[] = {
    {SETTING_ON_START, {2, 3, 4}},       /* none, restart if it was running, always */
    {SETTING_ON_STOP, {4, 3, 2}},        /* shut down, save, turn off */
};
const unsigned xml_enum_count = ARRAY_SIZE(xml_enums);
