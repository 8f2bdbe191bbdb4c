"""`mapcell demo`: a real model, from its checkpoint to embeddings in several workers, in three ways side by side.

assets      where the model, its tokenizer and the reference embeddings are
tokenize    sentences to token ids
minilm      the network, built from Cells; lenet5: a smaller one
ordinary    the two ways without mapcell: a private copy, a map of the file
worker      one process that serves the model, and what each of its steps took
processes   the processes and the folder of a run, which always end with it (signals)
measure     what processes hold in memory
run         the comparison; table: what is printed of it; command: `mapcell demo`
"""
