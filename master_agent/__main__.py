"""`python -m master_agent` is `master-agent`."""

from master_agent.cli import main

if __name__ == "__main__":
    main()
