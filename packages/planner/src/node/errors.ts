import { type Evidence, PlannerError } from '../errors.js'

export type LoadErrorCode =
  /** A domain's name that cannot be a file name: empty, or with a slash, a NUL or dots alone. */
  | 'bad-domain-name'
  /** No such domain in the folder of domains. */
  | 'domain-missing'
  | 'file-missing'
  /** No permission, an I/O error, or not a regular file. */
  | 'file-unreadable'
  | 'file-too-large'
  /** Not UTF-8. */
  | 'file-not-text'

/** Metadata that cannot be read from files. `evidence.path` names the file. */
export class LoadError extends PlannerError {
  override readonly name = 'LoadError'
  readonly code: LoadErrorCode

  constructor(code: LoadErrorCode, message: string, evidence: Evidence, options?: ErrorOptions) {
    super(message, evidence, options)
    this.code = code
  }
}
