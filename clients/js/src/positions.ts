// How far the bindings of a channel have come.

/** What is sent to the server: the very object that supabase-js sends again at each rejoin. */
export interface SentBinding {
  event: string
  schema: string
  table?: string
  filter?: string
  select?: string[]
  history?: number
  order?: string
  cursor: true
  since?: string
}

export class Positions {
  #cursors = new Map<SentBinding, string | undefined>()
  #latest: string | undefined
  #moved: (binding: SentBinding, cursor: string | undefined) => void

  /** `moved` is told of each binding that comes further, or that loses its place. */
  constructor(moved: (binding: SentBinding, cursor: string | undefined) => void = () => {}) {
    this.#moved = moved
  }

  add(binding: SentBinding, cursor?: string): void {
    this.#set(binding, cursor)
  }

  bindings(): SentBinding[] {
    return [...this.#cursors.keys()]
  }

  /**
   * A change for one binding. Its cursor stands for all that came before it on the channel, and for the change itself where that came
   * in the same message. A binding with other columns gets a message of its own, which may still be under way.
   */
  change(binding: SentBinding, cursor: string): void {
    const before = cursor === this.#latest ? undefined : this.#latest
    for (const other of this.#cursors.keys()) {
      if (other === binding || !mayGetAnotherMessage(other, binding)) this.#set(other, cursor)
      else if (before !== undefined) this.#set(other, before)
    }
    this.#latest = cursor
  }

  /** The server says that nothing of what came before is missing. */
  everything(cursor: string): void {
    for (const binding of this.#cursors.keys()) this.#set(binding, cursor)
    this.#latest = cursor
  }

  forget(): void {
    for (const binding of this.#cursors.keys()) this.#set(binding, undefined)
    this.#latest = undefined
  }

  entries(): [SentBinding, string][] {
    return [...this.#cursors].filter((entry): entry is [SentBinding, string] => entry[1] !== undefined)
  }

  /** Whether there is a binding whose place is not known. */
  incomplete(): boolean {
    return [...this.#cursors.values()].includes(undefined)
  }

  #set(binding: SentBinding, cursor: string | undefined): void {
    if (this.#cursors.has(binding) && this.#cursors.get(binding) === cursor) return
    this.#cursors.set(binding, cursor)
    this.#moved(binding, cursor)
  }
}

function mayGetAnotherMessage(one: SentBinding, other: SentBinding): boolean {
  const sameTable = one.schema === other.schema && one.table === other.table
  const known = one.table !== undefined && other.table !== undefined && one.table !== '*' && other.table !== '*'
  if (known && !sameTable) return false
  return JSON.stringify(one.select) !== JSON.stringify(other.select)
}
