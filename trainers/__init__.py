"""What learns: the teacher, the corpus, supernets, distilled students, and the metrics they are judged by."""
