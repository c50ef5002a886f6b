package netstat

// InterfaceName returns the name of the network device with the index; empty if it is unknown.
func (n *Namespace) InterfaceName(uint32) string { return "" }
