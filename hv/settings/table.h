/*
 * Every setting of a virtual machine, once. JSON, XML, validation, `set` options and
 * the man page come from here; nothing else lists settings.
 *
 *   S(ID, group, key, TYPE, field, min, max, default, live, wmi, help)
 *
 * group.key   the operator's key: JSON nests by group ("" = top level), flat where alone
 * TYPE        SIZE bytes, multiple of 2 MiB · UINT · PCT · BOOL · ENUM (words in settings.c) ·
 *             DURATION milliseconds · TEXT any · PATH absolute
 * default     number, or string for TEXT and PATH (NULL: not set)
 * live        NOW a running VM takes it at once · NEXT at next start · NEVER fixed at creation
 * wmi         "Class.Property:type[*2^20|/100|/1000]": what holds it in the stored XML, its CIM type, and
 *             what makes the value there ours (MiB to bytes; weight to priority). A BOOL of type uint16
 *             is an EnabledState, 2 or 3. Hv_* are companion classes (DESIGN 11).
 *
 * Ranges and defaults: specs/operator-surface "memory set", "processor"; Hyper-V's own
 * ranges for memory.buffer_pct and memory.priority.
 */
S(NOTES,      "",          "notes",      TEXT, notes,        0, 4096, NULL, NOW,
  "Msvm_VirtualSystemSettingData.Notes:string[]", "free text about this VM")
S(ENGINE,     "",          "engine",     ENUM, engine,       0, 2, 0, NEXT,
  "Hv_VirtualSystemSettingData.Engine:string", "CPU engine: auto takes kvm where VT-x or AMD-V backs it, else soft")
S(MITIGATIONS, "",         "mitigations", ENUM, mitigations, 0, 1, 0, NEXT,
  "Hv_VirtualSystemSettingData.Mitigations:string", "soft engine: fast tells the guest it needs none against speculation, guest lets it decide")
S(HYPERV,     "",          "hyperv",     BOOL, hyperv,       0, 1, 1, NEXT,
  "Hv_VirtualSystemSettingData.HyperVInterface:boolean", "show the guest the Hyper-V interface and its devices")
S(LOCK,       "",          "lock",       BOOL, lock,         0, 1, 0, NOW,
  "Hv_VirtualSystemSettingData.Lock:boolean", "refuse remove and turn-off")
S(ON_START,   "",          "on_start",   ENUM, on_start,     0, 2, 0, NOW,
  "Msvm_VirtualSystemSettingData.AutomaticStartupAction:uint16", "what to do when the host starts")
S(START_DELAY, "",         "start_delay_ms", DURATION, start_delay_ms, 0, 86400000, 0, NOW,
  "Msvm_VirtualSystemSettingData.AutomaticStartupActionDelay:datetime", "how long after the host's start on_start waits")
S(ON_STOP,    "",          "on_stop",    ENUM, on_stop,      0, 2, 0, NOW,
  "Msvm_VirtualSystemSettingData.AutomaticShutdownAction:uint16", "what to do when the host stops")
S(MEM_DYNAMIC, "memory",   "dynamic",    BOOL, memory.dynamic, 0, 1, 0, NEXT,
  "Msvm_MemorySettingData.DynamicMemoryEnabled:boolean", "let the balancer move this VM's memory")
S(MEM_STARTUP, "memory",   "startup",    SIZE, memory.startup, 32 * MIB, 12 * TIB, 1 * GIB, NEXT,
  "Msvm_MemorySettingData.VirtualQuantity:uint64*2^20", "memory the guest boots with; all it has where memory is static")
S(MEM_MIN,    "memory",    "min",        SIZE, memory.min,   32 * MIB, 12 * TIB, 512 * MIB, NOW,
  "Msvm_MemorySettingData.Reservation:uint64*2^20", "never take memory away below this")
S(MEM_MAX,    "memory",    "max",        SIZE, memory.max,   32 * MIB, 12 * TIB, 1 * TIB, NOW,
  "Msvm_MemorySettingData.Limit:uint64*2^20", "never give more than this")
S(MEM_BUFFER, "memory",    "buffer_pct", PCT,  memory.buffer_pct, 5, 2000, 20, NOW,
  "Msvm_MemorySettingData.TargetMemoryBuffer:uint32", "head-room above demand the balancer keeps, in per cent of demand")
S(MEM_PRIORITY, "memory",  "priority",   UINT, memory.priority, 0, 100, 50, NOW,
  "Msvm_MemorySettingData.Weight:uint32/100", "who gets memory first when it is short")
S(MEM_SOURCE, "memory",    "demand_source", ENUM, memory.demand_source, 0, 2, 0, NOW,
  "Hv_MemorySettingData.DemandSource:string", "how demand is worked out: what is in use led by what is committed, committed alone, in use alone")
S(MEM_VISIBLE, "memory",   "visible",    ENUM, memory.visible, 0, 1, 0, NEXT,
  "Hv_MemorySettingData.Visible:string", "memory the guest sees at boot; max is for guests that cannot take more while they run")
S(MEM_PAGING, "memory",    "smart_paging", TEXT, memory.smart_paging, 0, 4095, NULL, NEXT,
  "Hv_MemorySettingData.SmartPaging:string", "folder on a disk for what a restart cannot have in memory, or none; not set: the folder of the VM's settings")
S(CPU_COUNT,  "processor", "cpus",       UINT, processor.cpus, 1, 64, 1, NEXT,
  "Msvm_ProcessorSettingData.VirtualQuantity:uint64", "virtual processors")
S(CPU_WEIGHT, "processor", "weight",     UINT, processor.weight, 0, 10000, 100, NOW,
  "Msvm_ProcessorSettingData.Weight:uint32", "its share of the host's processors where they are short, against the others'")
S(CPU_LIMIT,  "processor", "limit_pct",  PCT,  processor.limit_pct, 1, 100, 100, NOW,
  "Msvm_ProcessorSettingData.Limit:uint64/1000", "most of its processors' time that it may use")
S(SERVICE_HEARTBEAT, "services", "heartbeat", BOOL, services.heartbeat, 0, 1, 1, NOW,
  "Msvm_HeartbeatComponentSettingData.EnabledState:uint16", "offer the heartbeat service: does the guest still answer")
S(SERVICE_SHUTDOWN, "services", "shutdown", BOOL, services.shutdown, 0, 1, 1, NOW,
  "Msvm_ShutdownComponentSettingData.EnabledState:uint16", "offer the shutdown service, by which the guest is asked to power off or restart")
S(SERVICE_TIME_SYNC, "services", "time_sync", BOOL, services.time_sync, 0, 1, 1, NOW,
  "Msvm_TimeSyncComponentSettingData.EnabledState:uint16", "offer the time service, which keeps the clock of the guest")
S(SERVICE_KVP, "services", "kvp", BOOL, services.kvp, 0, 1, 1, NOW,
  "Msvm_KvpExchangeComponentSettingData.EnabledState:uint16", "offer the key-value service: what the guest tells of itself")
S(SERVICE_VSS, "services", "vss", BOOL, services.vss, 0, 1, 1, NOW,
  "Msvm_VssComponentSettingData.EnabledState:uint16", "offer the freeze service, for consistent copies of disks")
S(SERVICE_FILE_COPY, "services", "file_copy", BOOL, services.file_copy, 0, 1, 1, NOW,
  "Msvm_GuestServiceInterfaceComponentSettingData.EnabledState:uint16", "offer the file copy service")
S(BOOT_KERNEL, "boot",     "kernel",     PATH, boot.kernel,  0, 4095, NULL, NEXT,
  "Hv_BootSettingData.Kernel:string", "Linux kernel to boot directly: a bzImage or an ELF file")
S(BOOT_INITRD, "boot",     "initrd",     PATH, boot.initrd,  0, 4095, NULL, NEXT,
  "Hv_BootSettingData.Initrd:string", "initial RAM disk for the kernel")
S(BOOT_CMDLINE, "boot",    "cmdline",    TEXT, boot.cmdline, 0, 2047, NULL, NEXT,
  "Hv_BootSettingData.CommandLine:string", "kernel command line")
S(BOOT_REBOOT, "boot",     "on_reboot",  ENUM, boot.on_reboot, 0, 1, 0, NOW,
  "Hv_BootSettingData.OnGuestReboot:string", "what a reboot by the guest does: restart it, or end as a power-off does")
S(BOOT_TRIPLE, "boot",     "on_triple_fault", ENUM, boot.on_triple_fault, 0, 1, 0, NOW,
  "Hv_BootSettingData.OnTripleFault:string", "what a triple fault does: restart the guest as Hyper-V does, or end the VM as crashed")
S(BOOT_TEST,  "boot",      "test_device", BOOL, boot.test_device, 0, 1, 0, NEXT,
  "Hv_BootSettingData.TestDevice:boolean", "the ports by which test kernels end: a VM that writes 0xf4 goes off with that exit code")
#undef S
