$(call room, engine, hv/engine, )
