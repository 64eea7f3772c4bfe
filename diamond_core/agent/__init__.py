"""Learn: the actor-critic, acting in any vector environment, and the losses."""
