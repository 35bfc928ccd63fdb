"""What the jobs of the command are made of: rows, baselines, verdicts, folders of runs."""
