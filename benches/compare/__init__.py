"""The parts of compare.py. With this file the folder, not the script, is what `import compare` finds."""
