$(call room, engine_kvm, hv/engine/kvm, )
