$(call room, settings_xml, hv/settings/xml, libxml-2.0 jansson)
