package org.crac;

/**
 * Where resources are registered: see {@link jdk.crac.Context}.
 *
 * @param <R> what is registered
 */
public abstract class Context<R extends Resource> implements Resource {
    /** For subclasses. */
    protected Context() {}

    @Override
    public abstract void beforeCheckpoint(Context<? extends Resource> context)
            throws CheckpointException;

    @Override
    public abstract void afterRestore(Context<? extends Resource> context) throws RestoreException;

    /**
     * Registers a resource.
     *
     * @param resource held weakly; registered twice it has the later place
     */
    public abstract void register(R resource);
}
