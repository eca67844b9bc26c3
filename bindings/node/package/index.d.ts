/** How this process goes on after a checkpoint. */
export interface Outcome {
  /** `resumed`: the original, of which there is an image; `restored`: a copy; `failed`: the original, no image. */
  readonly state: 'resumed' | 'restored' | 'failed';
  /** How many checkpoints lie behind the process; 0 where this one failed. */
  readonly generation: number;
  /** Where the image is, if `resumed`. */
  readonly image?: string;
  /** 32 hexadecimal digits that tell one copy from another, if `restored`; so are all that follow. */
  readonly instance?: string;
  /** Random and secret, to seed generators with. */
  readonly seed?: Uint8Array;
  /** When the restore command started, in milliseconds since 1970. */
  readonly restoreUnixMs?: number;
  /** The environment of the restore command; `process.env` has it, too. */
  readonly environment?: Readonly<Record<string, string>>;
  /** New arguments: the words after `tub restore DIR --`. */
  readonly arguments?: readonly string[];
}

/** One thing that went wrong. */
export interface Failure {
  /** The name of an error's class, or `CheckpointOpenFileException` and the like, as in Java. */
  readonly type: string;
  /** What is wrong; of a descriptor its path or address. */
  readonly message: string;
  /** The hook that failed, if one did. */
  readonly resource: string | null;
}

/** There is no image, and the program goes on. */
export class CheckpointException extends Error {
  readonly failures: readonly Failure[];
}

/** There is an image; hooks failed afterwards. */
export class RestoreException extends Error {
  readonly failures: readonly Failure[];
}

export interface Resource {
  beforeCheckpoint?(): unknown;
  afterRestore?(outcome: Outcome): unknown;
}

/** Ends a registration; gives whether it was there. */
export type Unregister = () => boolean;

/** Has a hook called before each checkpoint, in reverse order of registration. It may give a promise. */
export function beforeCheckpoint(hook: () => unknown, name?: string): Unregister;

/** Has a hook called after each checkpoint, in order of registration, in the original and in every copy. */
export function afterRestore(hook: (outcome: Outcome) => unknown, name?: string): Unregister;

/** Registers an object with either hook, or both. */
export function register(resource: Resource, name?: string): Unregister;

/** Asks for a checkpoint of this process; fulfilled in the original and in every copy. */
export function checkpoint(): Promise<Outcome>;
