#!/opt/stgcn/bin/python
from stgcn.preprocess import main, run_main

run_main(main)
