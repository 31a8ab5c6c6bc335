"""What joins several nodes: placement of devices, and a tier that they share. Without Redis nothing here is used."""
