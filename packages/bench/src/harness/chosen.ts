/** Whether `--only` means this one: by its name, or by what several names begin with (`dump` for `dump-plain`). */
export function isChosen(name: string, only: string | undefined): boolean {
  return only === undefined || name === only || name.startsWith(`${only}-`)
}
