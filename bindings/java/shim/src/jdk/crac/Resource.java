package jdk.crac;

/**
 * Something that has to know when the process is frozen into an image, and when it goes on.
 *
 * <p>Registered with a {@link Context}, which holds it weakly: keep a reference of your own.
 */
public interface Resource {
    /**
     * Called before an image is taken, on a thread of the coordination's own, while all other
     * threads run. Close what cannot be in an image.
     *
     * @param context the context with which this resource is registered
     * @throws Exception to refuse the checkpoint; every other resource is told all the same
     */
    void beforeCheckpoint(Context<? extends Resource> context) throws Exception;

    /**
     * Called when the process goes on: in a copy, in the original after an image, and also where
     * there was no image after all. Called for every resource whose before-hook was called.
     *
     * @param context the context with which this resource is registered
     * @throws Exception what went wrong; every other resource is told all the same
     */
    void afterRestore(Context<? extends Resource> context) throws Exception;
}
