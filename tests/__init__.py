from tests import typecheck as typecheck  # jaxtyping's hook looks it up here
