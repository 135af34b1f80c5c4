$(call room, engine_soft, hv/engine/soft, )
