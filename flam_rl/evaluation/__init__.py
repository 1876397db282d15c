"""Evaluation: rollouts, image metrics, factor-entity correspondence, policies, pictures."""
