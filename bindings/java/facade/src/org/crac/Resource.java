package org.crac;

/** What takes part in checkpoints: see {@link jdk.crac.Resource}. */
public interface Resource {
    /**
     * Called before an image is taken.
     *
     * @param context the context with which this resource is registered
     * @throws Exception to refuse the checkpoint
     */
    void beforeCheckpoint(Context<? extends Resource> context) throws Exception;

    /**
     * Called when the process goes on, in a copy or not.
     *
     * @param context the context with which this resource is registered
     * @throws Exception what went wrong
     */
    void afterRestore(Context<? extends Resource> context) throws Exception;
}
