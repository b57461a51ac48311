"""Study `data_parallel`: what does a second device buy in training?"""
