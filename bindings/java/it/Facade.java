import java.io.BufferedReader;
import java.io.InputStreamReader;
import org.crac.CheckpointException;
import org.crac.Context;
import org.crac.Core;
import org.crac.Resource;

/** A process that knows the facade {@code org.crac} only, as frameworks do. */
public class Facade implements Resource {
    private static final Facade INSTANCE = new Facade();
    private static volatile boolean objects;

    public static void main(String[] arguments) throws Exception {
        Core.getGlobalContext().register(INSTANCE);
        System.out.println("bean " + ask("getRestoreTime") + " " + ask("getUptimeSinceRestore"));
        try {
            Core.checkpointRestore();
            System.out.println("unexpected");
        } catch (CheckpointException e) {
            System.out.println("failed " + e.getSuppressed()[0].getMessage());
        }
        System.out.println("ready");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        while (in.readLine() != null) {
            objects = true;
            System.out.println("objects");
        }
    }

    /** Asks the facade's bean, which came with its release 1.4.0; the platform's before that. */
    private static long ask(String method) {
        try {
            Class<?> type;
            try {
                type = Class.forName("org.crac.management.CRaCMXBean");
            } catch (ClassNotFoundException e) {
                type = Class.forName("jdk.crac.management.CRaCMXBean");
            }
            Object bean = type.getMethod("getCRaCMXBean").invoke(null);
            return (long) type.getMethod(method).invoke(bean);
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
    }

    @Override
    public void beforeCheckpoint(Context<? extends Resource> context) throws Exception {
        System.out.println("before");
        if (objects) {
            throw new IllegalStateException("the facade's resource objects");
        }
    }

    @Override
    public void afterRestore(Context<? extends Resource> context) {
        System.out.println("after " + (ask("getUptimeSinceRestore") >= 0));
    }
}
