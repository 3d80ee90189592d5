"""What tables and figures call things."""

# the sources in the order of the tables, and what they are called where a person reads them
SOURCES = {
    "published": "published",
    "paper_recipe": "published recipe, run here",
    "ipbasis": "ipbasis",
    "trained": "ipbasis, trained by gradients",
    "pinn": "plain PINN",
    "least_squares": "least squares around a solver",
}
# bases that are compared with each other, and what they are called
BASES = {
    "ipbasis": "ipbasis",
    "trained": "ipbasis: trained by gradients",
    "paper_recipe": "trained by the published recipe",
    "pod": "POD of exact solutions",
    "chebyshev": "Chebyshev polynomials",
    "untrained": "untrained network as wide",
    "random_features": "untrained network, width and scales chosen",
    "sinusoidal": "random Fourier features, number and scales chosen",
}
# one colour per source in every figure; distinguishable without colour vision (Okabe & Ito)
COLOURS = {
    "published": "#999999",
    "paper_recipe": "#E69F00",
    "ipbasis": "#0072B2",
    "trained": "#56B4E9",
    "pinn": "#CC79A7",
    "least_squares": "#009E73",
}
# how a solver searches unknown terms, as the tables call it, and where a person reads it
SEARCHES = {"free_form": "free_form", "library": "library", "term_networks": "network"}
SEARCH_TEXTS = {"free_form": "free form", "library": "library", "network": "network"}


def method_text(source: str, terms: object = None) -> str:
    """What a source is called, and how it searched unknown terms where it did.

    Args:
        source: one of `SOURCES`.
        terms: one of `SEARCH_TEXTS`; anything else stands for none.
    """
    return f"{SOURCES[source]}, {SEARCH_TEXTS[terms]}" if terms in SEARCH_TEXTS else SOURCES[source]
