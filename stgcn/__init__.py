"""ST-GCN on the GPU host: dataset, model, export and score. Python 3.7 with torch 1.2 and today's Python alike."""
