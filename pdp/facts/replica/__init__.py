"""The memory half of the room: policy and facts at one revision, and who follows the changes."""
