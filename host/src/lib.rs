//! Moves ciphertext: relay in, allow-listed egress out, sealed-model files.
