"""Visual question answering: official accuracy, answer normalisation, question types, soft targets."""
