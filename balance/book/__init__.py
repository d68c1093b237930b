"""What the figures of the chapters share: their style and a slider that needs no kernel. Needs matplotlib."""
