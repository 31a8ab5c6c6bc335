"""Stand-in upstreams on loopback that speak the real wire protocols, with set delays and scripted faults."""
