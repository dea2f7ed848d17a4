#!/opt/stgcn/bin/python
from stgcn.score import main, run_main

run_main(main)
