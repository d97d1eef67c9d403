"""What proposes candidates: one ask/tell contract, and the strategies that keep it. Nothing here knows Ray."""
