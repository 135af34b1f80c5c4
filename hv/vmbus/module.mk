$(call room, vmbus, hv/vmbus, )
