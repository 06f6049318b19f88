# Starts and ends an example with its real edges. Its Makefile includes this.
#
#   make up      starts servers and the example's pipelines, and shows where to look
#   make down    ends them, and removes what they have written
.PHONY: up down

example := $(notdir $(CURDIR))

up:
	@../edges.sh up $(example)

down:
	@../edges.sh down $(example)
