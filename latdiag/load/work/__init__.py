"""What is asked when: schedules, lengths, prompts, plans."""
