"""Study 5: multi-modal interaction in vision LLMs."""
