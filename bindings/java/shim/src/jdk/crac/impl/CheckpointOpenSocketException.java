package jdk.crac.impl;

/** A socket that the application left open and that cannot be in an image. */
public class CheckpointOpenSocketException extends CheckpointOpenResourceException {
    private static final long serialVersionUID = 1L;

    /**
     * With what is open.
     *
     * @param details descriptor and name of the object
     */
    public CheckpointOpenSocketException(String details) {
        super(details);
    }
}
