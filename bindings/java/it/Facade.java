import java.io.BufferedReader;
import java.io.InputStreamReader;
import org.crac.CheckpointException;
import org.crac.Context;
import org.crac.Core;
import org.crac.Resource;
import org.crac.management.CRaCMXBean;

/** A process that knows the facade {@code org.crac} only, as frameworks do. */
public class Facade implements Resource {
    private static final Facade INSTANCE = new Facade();
    private static volatile boolean objects;

    public static void main(String[] arguments) throws Exception {
        Core.getGlobalContext().register(INSTANCE);
        CRaCMXBean bean = CRaCMXBean.getCRaCMXBean();
        System.out.println("bean " + bean.getRestoreTime() + " " + bean.getUptimeSinceRestore());
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

    @Override
    public void beforeCheckpoint(Context<? extends Resource> context) throws Exception {
        System.out.println("before");
        if (objects) {
            throw new IllegalStateException("the facade's resource objects");
        }
    }

    @Override
    public void afterRestore(Context<? extends Resource> context) {
        CRaCMXBean bean = CRaCMXBean.getCRaCMXBean();
        System.out.println("after " + (bean.getUptimeSinceRestore() >= 0));
    }
}
