// JSON merge patches, RFC 7396.

/** The value that `patch` makes of `target`, which is changed where it is an object. */
export function merge(target, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  if (target === null || typeof target !== "object" || Array.isArray(target)) target = {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete target[key];
    else target[key] = merge(Object.hasOwn(target, key) ? target[key] : undefined, value);
  }
  return target;
}
