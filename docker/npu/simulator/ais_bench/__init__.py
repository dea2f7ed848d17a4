"""ais_bench of a simulated host: `python -m ais_bench` over `aclruntime`, as of the era that NPU_SIM_ERA names.

2022-06  drops the last partial batch, takes files in plain string order, names results by position, always shows the
         copy times and writes `sumary.json` inside the results folder
2022-12  pads the last partial batch, natural order, `<stem>_<output>` results, `<folder>_summary.json` beside them
2023-06  takes a list of devices, --divide_input and --threads; TXT results no longer append
2024     takes dashed flags; refuses links, strangers' files, files others may write and output folders wider than 0750
"""
