"""What is done with runs afterwards, out of the journal: what each used, who made a file, taken back, taken out."""
