"""`sightline models optimise`: pictures, the steps of an optimisation, and its report."""
