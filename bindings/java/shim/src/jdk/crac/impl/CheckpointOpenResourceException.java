package jdk.crac.impl;

/** Something that the application left open and that cannot be in an image. */
public class CheckpointOpenResourceException extends Exception {
    private static final long serialVersionUID = 1L;

    /**
     * With what is open.
     *
     * @param details descriptor and name of the object
     */
    public CheckpointOpenResourceException(String details) {
        super(details);
    }
}
