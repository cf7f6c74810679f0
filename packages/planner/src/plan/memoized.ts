/** The same function of a name, computed once for each. */
export function memoized<T>(make: (name: string) => T): (name: string) => T {
  const made = new Map<string, { readonly value: T }>()
  return name => {
    const known = made.get(name) ?? { value: make(name) }
    made.set(name, known)
    return known.value
  }
}
