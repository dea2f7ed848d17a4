#!/opt/stgcn/bin/python
from stgcn.export import main, run_main

run_main(main)
