package jdk.crac.impl;

/** A file that the application left open and that cannot be in an image. */
public class CheckpointOpenFileException extends CheckpointOpenResourceException {
    private static final long serialVersionUID = 1L;

    /**
     * With what is open.
     *
     * @param details descriptor and name of the object
     */
    public CheckpointOpenFileException(String details) {
        super(details);
    }
}
