"""The control side: inventory, hosts, stages and the manifest that records what they did."""
