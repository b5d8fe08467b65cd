"""Gates that lie: how often a gate lets a candidate through that is worse than its margin."""
