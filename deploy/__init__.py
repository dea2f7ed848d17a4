"""The control side: inventory, hosts, stages and the manifest that proves what they did."""
