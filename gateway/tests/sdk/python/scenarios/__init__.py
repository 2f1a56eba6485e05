"""One module a scenario, each with an async function `scenario(test)`."""
