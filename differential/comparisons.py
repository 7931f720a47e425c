"""The lines of trainers.py and decoding.py: a comparison each, and a summary."""


class Comparisons:
    """What was compared, and what of it was different."""

    def __init__(self):
        self.n = 0
        self.different = []

    def compare(self, name, figure, most):
        """Prints whether a figure is `most` or less; that of a NaN is different."""
        equal = figure <= most
        self.n += 1
        if not equal:
            self.different.append(name)
        print(f"{'equal' if equal else 'DIFFERENT':11}{name}: {figure:.3g}, at most {most:.3g}", flush=True)

    def finish(self):
        """Prints the summary; the exit status."""
        print(f"\n{self.n} comparisons, {len(self.different)} different" + (":" if self.different else ""))
        for name in self.different:
            print(f"  {name}")
        return int(bool(self.different) or self.n == 0)
